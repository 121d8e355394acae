"""Where the original files of the data sets are, if they are here."""

import os
from pathlib import Path

import pytest

DATA_DIR = Path(os.environ.get("FL_DATA_DIR", Path(__file__).parents[2].parent / "shared" / "data"))


def needs(folder: str) -> pytest.MarkDecorator:
    """Skips a test whose data set is not here."""
    return pytest.mark.skipif(
        not (DATA_DIR / folder).is_dir(),
        reason=f"the original files are not here: set FL_DATA_DIR to the folder that has {folder}/",
    )
