"""Runs in the environment of vLLM: answers of an exported folder, as JSON on the last line of stdout.

    python ask.py '{"folder": ..., "conversations": [...], "max_tokens": 24, "budget": 256, "dtype": "float32"}'

Every conversation is asked in one batch, then all of them again, which the prefix cache shortens.
"""

import json
import sys
from typing import Any


def main(task: dict[str, Any]) -> None:
    import torch
    from vllm import LLM, SamplingParams

    torch.set_num_threads(1)
    llm = LLM(
        task["folder"],
        dtype=task["dtype"],
        enforce_eager=True,
        max_model_len=task["length"],
        max_num_batched_tokens=task["budget"],
        max_num_seqs=8,
        enable_prefix_caching=True,
    )
    sampling = SamplingParams(temperature=0.0, max_tokens=task["max_tokens"], logprobs=1)
    rounds = [llm.chat(task["conversations"], sampling, use_tqdm=False) for _ in range(2)]
    image = llm.llm_engine.model_config.hf_config.image_token_id
    found = [
        [
            {
                "prompt": list(answer.prompt_token_ids),
                "ids": list(answer.outputs[0].token_ids),
                "first": next(iter(answer.outputs[0].logprobs[0].values())).logprob,
                "cached": answer.num_cached_tokens,
            }
            for answer in answers
        ]
        for answers in rounds
    ]
    print(json.dumps({"image_token": image, "rounds": found}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
