"""Training recipes: a page each, on TRL and PEFT. Config in, adapter out; each continues where it was killed."""

import logging

# PEFT imports bitsandbytes, which warns of a kernel that only QLoRA on a CPU would use.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
