"""Training of donors with TRL: supervised fine-tuning, then GRPO; rewards are evaluation's graders."""
