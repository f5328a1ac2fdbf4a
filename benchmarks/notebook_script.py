"""What somebody writes in a notebook: load three models, add the difference, save.

python benchmarks/notebook_script.py TARGET TUNED BASE ALPHA OUT
"""

import sys

import torch
from transformers import AutoModelForCausalLM

target, tuned, base = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16) for path in sys.argv[1:4])
alpha, out = float(sys.argv[4]), sys.argv[5]
with torch.no_grad():
    for p, a, b in zip(target.parameters(), tuned.parameters(), base.parameters(), strict=True):
        p.add_(alpha * (a - b))
target.save_pretrained(out)
