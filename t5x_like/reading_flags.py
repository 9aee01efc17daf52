"""The flags by which a command is told what to read, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from absl import flags

if TYPE_CHECKING:
    from t5x_like.data.documents import Settings


class ReadingFlags:
    """Defines the flags and reads them.

    Args:
      values: the flags of the command.
    """

    def __init__(self, values: flags.FlagValues):
        self._input = flags.DEFINE_multi(
            flags.ListParser(),
            flags.ListSerializer(","),
            "input",
            None,
            "sources, separated by commas; may be repeated",
            flag_values=values,
        )
        self._text_field = flags.DEFINE_string(
            "text_field",
            "text",
            "JSON field, Parquet column or TFDS feature that holds the text",
            flag_values=values,
        )
        self._documents = flags.DEFINE_enum(
            "documents",
            "blank_line",
            ["blank_line", "line", "file"],
            "what ends a document in .txt files",
            flag_values=values,
        )
        self._bad_input = flags.DEFINE_enum(
            "bad_input",
            "skip",
            ["skip", "fail", "replace"],
            "bad documents: leave out, stop at the first, or mend (U+FFFD for invalid UTF-8, NUL taken out, over-long "
            "cut)",
            flag_values=values,
        )
        self._max_document_bytes = flags.DEFINE_integer(
            "max_document_bytes",
            16 << 20,
            "longest document, page, or line of JSON",
            lower_bound=1,
            flag_values=values,
        )
        self._tfds_data_dir = flags.DEFINE_string(
            "tfds_data_dir", None, "where TFDS keeps prepared datasets", flag_values=values
        )

    @property
    def input(self) -> tuple[str, ...]:
        """Names of sources."""
        return tuple(name for names in self._input.value or () for name in names)

    @property
    def tfds_data_dir(self) -> str | None:
        """Where TFDS keeps prepared datasets."""
        return self._tfds_data_dir.value

    def settings(self) -> Settings:
        """How documents are read."""
        from t5x_like.data.documents import Settings

        return Settings(
            text_field=self._text_field.value,
            documents=cast(Any, self._documents.value),
            bad_input=cast(Any, self._bad_input.value),
            max_document_bytes=self._max_document_bytes.value,
        )
