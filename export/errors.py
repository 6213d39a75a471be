"""Every error that the exporter raises on purpose.

ExportError
├── DatasetNotFound         no such dataset, or its files are not on this machine
├── CorruptDataset          its files are not the ones that are known by their sha256
├── InvalidData             a file of your own data is not what it should be
├── InvalidRecipe           the recipe says something that cannot be trained
├── UnseenClass             the training rows lack a class, so no member would have its column
├── InvalidModel            a file is no trained classifier of a kind that is known, or may not be opened
├── Mismatch                a model's inputs or classes are not the data's, or a version's not those before it
├── ConversionFailed        a converter wrote a graph that does not keep the members' contract
├── ParityError             a graph answers something else than the model that it was converted from
├── CorruptLibrary          what an earlier run has kept cannot be read
├── NothingFits             no candidate, or no set of them, is within the limits that were asked for
├── PackingError            the packed graph answers something else than its members apart
└── PublishError            a version does not verify, or is there already
"""


class ExportError(Exception):
    """Base of all. The message says what was expected, what came, and where."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class DatasetNotFound(ExportError):
    pass


class CorruptDataset(ExportError):
    pass


class InvalidData(ExportError):
    pass


class InvalidRecipe(ExportError):
    pass


class UnseenClass(ExportError):
    pass


class InvalidModel(ExportError):
    pass


class Mismatch(ExportError):
    pass


class ConversionFailed(ExportError):
    pass


class ParityError(ExportError):
    pass


class CorruptLibrary(ExportError):
    pass


class NothingFits(ExportError):
    pass


class PackingError(ExportError):
    pass


class PublishError(ExportError):
    pass
