"""Train a tiny MoR-ViT on cluttered digits: `python examples/train_digits.py --routing expert_choice --out DIR`.

Needs the `train` extra. Seeded: the same seed and number of threads give the same weights.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

import digits
import losses
import trainable
from morvit_deploy.config import Config, parse_config
from morvit_deploy.model import MoRViT
from morvit_deploy.presets import PRESETS
from routing_quality import routing_quality
