"""Published weights to folders of this package: every key accounted for, nothing run, little memory."""

from reg2rg.core.model_folder import WEIGHTS
from reg2rg.extras.convert import i3resnet, peers, radbert, radfm, reg2rg
from reg2rg.extras.convert.checksums import Sums, TensorSum, differences, read_sums, sum_tensor, sum_tensors
from reg2rg.extras.convert.converter import RECORD, Conversion, bytes_to_read, convert, open_published, verify_folder
from reg2rg.extras.convert.formats import FORMATS, Format, Opened, Options, register
from reg2rg.extras.convert.key_map import Account, Key, account, keys_of
from reg2rg.extras.convert.writing import check_new, write_tensors

__all__ = [
    "FORMATS",
    "RECORD",
    "WEIGHTS",
    "Account",
    "Conversion",
    "Format",
    "Key",
    "Opened",
    "Options",
    "Sums",
    "TensorSum",
    "account",
    "bytes_to_read",
    "check_new",
    "convert",
    "differences",
    "i3resnet",
    "keys_of",
    "open_published",
    "peers",
    "radbert",
    "radfm",
    "read_sums",
    "reg2rg",
    "register",
    "sum_tensor",
    "sum_tensors",
    "verify_folder",
    "write_tensors",
]
