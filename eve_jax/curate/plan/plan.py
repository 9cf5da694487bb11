"""What a full run will take, predicted from a sample: records left, requests, tokens, GPU-days, storage, money.

python -m launch.curate plan --config=curate:evev1 --from=RECORDS [--config.plan.pilot=CAPTIONED]
"""

from dataclasses import asdict, dataclass
from typing import Any

from eve_jax.curate.config import LITE, PIXELS, CurateConfig, PlanConfig
from eve_jax.curate.plan.pilot import CaptionCost, caption_cost
from eve_jax.curate.plan.sample import Prediction, predict
from eve_jax.curate.report.content import PAPER_RATE
from eve_jax.data.sources.records import open_records

WIDTHS = {PIXELS: 192, LITE: 1280}  # of features, by embedder
OTHER_WIDTH = 1024  # of a CLIP or an endpoint's model
ROW_BYTES = 250  # of a record's measured columns and verdicts
LOG_BYTES, TOKEN_BYTES = 300, 4.5  # of a line of the answer log without its text; of a token of text
MILLION = 1e6


@dataclass(frozen=True)
class Plan:
    """A prediction, and what it costs.

    Attributes:
        prediction: the funnel of all records.
        cost: of a record that is captioned.
        requests: that are answered.
        prompt_tokens, answer_tokens: of all of them.
        captioned: records with a caption at the end.
        gpu_days: of captioning.
        money: in the currency of the config, by its prices.
        storage: bytes, by what they are of.
    """

    prediction: Prediction
    cost: CaptionCost
    requests: float
    prompt_tokens: float
    answer_tokens: float
    captioned: float
    gpu_days: float
    money: float
    storage: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values, counts rounded."""
        found = asdict(self.prediction)
        losses = [
            {"stage": stage, "rule": rule, "count": round(count)}
            for (stage, rule), count in self.prediction.losses.items()
        ]
        return {
            **found,
            "losses": losses,
            "kept": round(self.prediction.kept),
            "embedded": round(self.prediction.embedded),
            "requests": round(self.requests),
            "prompt_tokens": round(self.prompt_tokens),
            "answer_tokens": round(self.answer_tokens),
            "captioned": round(self.captioned),
            "gpu_days": round(self.gpu_days, 3),
            "money": round(self.money, 2),
            "storage": {name: round(value) for name, value in self.storage.items()},
            "cost_of_a_caption": asdict(self.cost),
        }


def make_plan(config: CurateConfig, records: str, images: str) -> Plan:
    """Return what a curation of the sources `records` and captions for what is left will take. Raises UserError."""
    settings, cost = config.plan, caption_cost(config.plan)
    return plan_of(predict(config, open_records(records, images, texts=False), settings.sample), cost, config)


def plan_of(prediction: Prediction, cost: CaptionCost, config: CurateConfig) -> Plan:
    """Return what `prediction` costs."""
    kept, settings = prediction.kept, config.plan
    requests, prompt, answer = (kept * one for one in (cost.requests, cost.prompt_tokens, cost.answer_tokens))
    days = kept / cost.per_gpu_day
    width = WIDTHS.get(config.embed.kind, OTHER_WIDTH)
    storage = {
        "images": kept * prediction.image_bytes,
        "columns": prediction.records * float(ROW_BYTES),
        "features": prediction.embedded * 2.0 * width,
        "answers": requests * LOG_BYTES + answer * TOKEN_BYTES,
    }
    money = _money(settings, days, prompt, answer)
    return Plan(prediction, cost, requests, prompt, answer, kept * cost.kept, days, money, storage)


def _money(settings: PlanConfig, days: float, prompt: float, answer: float) -> float:
    tokens = prompt * settings.prompt_price + answer * settings.answer_price
    return days * 24 * settings.gpu_hour + tokens / MILLION


def lines(plan: Plan, settings: PlanConfig) -> list[str]:
    """Return the plan for people."""
    found, said = plan.prediction, []
    said.append(f"{found.records:>16,} records, by a sample of {found.sampled:,}")
    said += [f"{-round(count):>16,} {stage}: {rule}" for (stage, rule), count in found.losses.items()]
    said += [
        f"{round(found.kept):>16,} are left",
        f"{round(plan.requests):>16,} requests for captions",
        f"{round(plan.prompt_tokens):>16,} tokens of prompts",
        f"{round(plan.answer_tokens):>16,} tokens of answers",
        f"{round(plan.captioned):>16,} captioned records",
        f"{plan.gpu_days:>16,.2f} GPU-days of captioning, at {plan.cost.per_gpu_day:,.0f} images a GPU-day "
        f"(DenseFusion: {PAPER_RATE:,})",
        f"{_size(sum(plan.storage.values())):>16} on disk: "
        + ", ".join(f"{name} {_size(value)}" for name, value in plan.storage.items() if value),
    ]
    prices = (settings.gpu_hour, settings.prompt_price, settings.answer_price)
    if any(prices):
        said.append(f"{plan.money:>16,.2f} {settings.currency}")
    said.append(f"tokens and time: {plan.cost.source}")
    return said + [f"note: {note}" for note in found.notes]


def _size(count: float) -> str:
    """Return bytes as "1.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
