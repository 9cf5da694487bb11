# eve_jax in a container (docs/containers.md):
#
#     docker build --build-arg DEVICE=cpu -t eve_jax .          cpu | tpu | cuda
#     docker run --rm -v "$PWD:/work" eve_jax chat --checkpoint=runs/demo/stage3 --prompt="..."

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG DEVICE=cpu
ARG EXTRAS=serve
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY eve_jax eve_jax
COPY launch launch
RUN case "$DEVICE" in \
        cpu) extras="$EXTRAS" ;; \
        tpu | cuda) extras="$DEVICE,$EXTRAS" ;; \
        *) echo "DEVICE=$DEVICE: expected cpu, tpu or cuda" >&2; exit 1 ;; \
    esac \
    && python -m venv /opt/eve \
    && /opt/eve/bin/pip install --no-cache-dir -c constraints.txt ".[$extras]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/eve /opt/eve
ENV PATH="/opt/eve/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/cache/huggingface \
    EVE_CACHE=/cache/eve
RUN useradd --create-home --uid 1000 eve \
    && mkdir -p /work /cache \
    && chown eve:eve /work /cache
USER eve
WORKDIR /work
VOLUME /cache
ENTRYPOINT ["eve"]
CMD ["--help"]
