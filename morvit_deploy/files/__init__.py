"""Writing completely or not at all: nothing appears half-written, and nothing of the user's is replaced.

Everything is written into a temporary folder beside its final place, locked while its process lives, and renamed.
What `--force` replaces is moved aside first and checked where it lies.
"""

from __future__ import annotations

from morvit_deploy.files.checks import Place, check_files, check_outside, check_utf8
from morvit_deploy.files.locks import locked_folder, temporary
from morvit_deploy.files.ours import (
    OWN_PNG,
    OWN_SVG,
    any_file,
    files_in,
    is_ours,
    is_own_page,
    is_own_png,
    is_own_svg,
    no_file,
    of_format,
    own_list,
)
from morvit_deploy.files.publishing import (
    check_free,
    make_readable,
    new_folder,
    write_bytes,
    write_text,
    write_together,
)

__all__ = [
    "OWN_PNG",
    "OWN_SVG",
    "Place",
    "any_file",
    "check_files",
    "check_free",
    "check_outside",
    "check_utf8",
    "files_in",
    "is_ours",
    "is_own_page",
    "is_own_png",
    "is_own_svg",
    "locked_folder",
    "make_readable",
    "new_folder",
    "no_file",
    "of_format",
    "own_list",
    "temporary",
    "write_bytes",
    "write_text",
    "write_together",
]
