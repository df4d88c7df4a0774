# ruff: noqa: F403
"""What this project uses of transformers, for pyright: its own __init__ has it read 2,500 files, of all its models.

Nothing is declared here but where things are: they are checked as transformers has them. A name that pyright doesn't
know is missing here: add the line of its model.
"""

from transformers.models.auto import *
from transformers.models.bart import *
from transformers.models.bert import *
from transformers.models.bit import *
from transformers.models.blip import *
from transformers.models.clip import *
from transformers.models.depth_anything import *
from transformers.models.detr import *
from transformers.models.dinov2 import *
from transformers.models.dinov2_with_registers import *
from transformers.models.dinov3_vit import *
from transformers.models.dpt import *
from transformers.models.eomt import *
from transformers.models.florence2 import *
from transformers.models.mask2former import *
from transformers.models.owlv2 import *
from transformers.models.rt_detr import *
from transformers.models.rt_detr_v2 import *
from transformers.models.sam2 import *
from transformers.models.siglip import *
from transformers.models.siglip2 import *
from transformers.models.t5 import *
from transformers.models.tipsv2_dpt import *
from transformers.models.vit import *
from transformers.models.vitpose import *
from transformers.models.vitpose_backbone import *
from transformers.models.zoedepth import *
from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast as PreTrainedTokenizerFast
