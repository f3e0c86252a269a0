"""Training recipes: a page each, on TRL and PEFT. Config in, adapter out; each continues where it was killed."""

import logging
import os

# PEFT imports bitsandbytes, which warns about a kernel that only QLoRA on a CPU would use. Tokenizers warn about forks.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
