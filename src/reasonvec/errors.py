"""Every error that reasonvec raises on purpose; the command line turns each into one message and an exit status.

ReasonvecError                     exit 1
├── CheckpointError                a checkpoint, index, header or tensor that cannot be trusted or read
├── VectorError                    a vector of another format version, damaged, or not a vector
├── BenchmarkError                 a benchmark's file, or training data, is missing, damaged or another one
├── RunError                       an evaluation's run that is damaged, unfinished or of another configuration
├── OutputError                    the output exists, cannot be written, or does not fit on the disk
├── SandboxError                   model-written code would run where it could do harm
├── ClusterError                  a Ray cluster that cannot be reached, or a node that sees other files or failed
├── MissingExtraError              an optional dependency that is not installed
├── TrainingError                  a training that went wrong: a loss that is no number, a vector without content
├── VerificationError              what was recomputed differs from what a receipt claims
├── UsageError                     exit 2: arguments that contradict one another
└── IncompatibleError              exit 3: checkpoints, or a vector and its target, that do not fit
"""


class ReasonvecError(Exception):
    """Base of all of them: what, where, both values, why it matters, the way out. Never shown with a traceback."""

    exit_status = 1


class CheckpointError(ReasonvecError):
    """A checkpoint, or one of its files, is missing, damaged, unsafe or of a kind that is not read."""


class VectorError(ReasonvecError):
    """A vector is missing, damaged or written in a format that this version does not read."""


class BenchmarkError(ReasonvecError):
    """A file of problems, or of training data, is missing, damaged, or not the one that its name is pinned to."""


class RunError(ReasonvecError):
    """A run is missing, damaged, unfinished, or was begun with another configuration; or runs cannot be compared."""


class OutputError(ReasonvecError):
    """The output exists already, cannot be written, or would not fit on the disk."""


class ClusterError(ReasonvecError):
    """A Ray cluster cannot be reached, one of its nodes sees other files than the rest, or a task was lost for good."""


class SandboxError(ReasonvecError):
    """Model-written code is not run here: a layer of the sandbox is missing, or the platform has none."""


class MissingExtraError(ReasonvecError):
    """An optional dependency is not installed; the message names the pip line."""


class TrainingError(ReasonvecError):
    """A training cannot go on, or what it made is not what it is for: a loss that is no number, an empty vector."""


class VerificationError(ReasonvecError):
    """A recomputation gave something else than a receipt claims, or could not be made."""


class UsageError(ReasonvecError):
    """Arguments that contradict one another or name nothing."""

    exit_status = 2


class IncompatibleError(ReasonvecError):
    """Two donors, or a vector and a target, do not fit; the message lists every case."""

    exit_status = 3
