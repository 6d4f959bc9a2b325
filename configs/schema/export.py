"""What `shardrec export` writes."""

from dataclasses import dataclass
from enum import Enum

from configs.bounds import check_bounds
from configs.paths import checked_folder
from configs.run_dir import checked_run_dir
from configs.url import is_url


class ExportDtype(str, Enum):
    """The number format of exported tables."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """A folder with a run's model that needs nothing of this project. Never part of a run's identity."""

    output: str = ""
    """Folder or URL that the model is exported to; empty: ``RUN_DIR/export``."""
    dtype: ExportDtype = ExportDtype.FLOAT32
    """Number format of the exported tables; int8 has a scale for each row. The encoder stays float32."""
    examples: int = 10
    """Users of the store whose history and recommendations are put in to test the copy with; 0: nobody's."""
    onnx: bool = False
    """Write the encoder as ONNX too; needs ``pip install 'shardrec[onnx]'``."""
    aot_inductor: bool = False
    """Write the encoder compiled for this kind of machine too; needs a C++ compiler."""
    faiss: bool = False
    """Write an approximate index of the items too, and its recall; needs ``pip install 'shardrec[faiss]'``."""

    mlflow: bool = False
    """Make the folder an MLflow model too, without a pickle; needs ``pip install 'shardrec[mlflow]'``."""

    def __post_init__(self) -> None:
        self.output = checked_folder("export.output", self.output)
        if is_url(self.output):
            self.output = checked_run_dir(self.output, "export.output")
        check_bounds("export.", self, examples=(0, 10_000))
