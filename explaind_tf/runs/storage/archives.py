"""Archives that unpack to far more than they are."""

from zipfile import ZipInfo

# A file that unpacks to less than this is no burden.
_SMALL_BYTES = 64 * 2**20
# Numbers of models and data become a few times smaller; zeros a thousand times.
_MOST_TIMES = 100


def check_ratio(member: ZipInfo) -> None:
    """Refuse a file of an archive that unpacks to far more than it takes in the archive.

    Raises
    ------
    ValueError
        If it does.
    """
    if member.file_size > max(_SMALL_BYTES, _MOST_TIMES * member.compress_size):
        raise ValueError(
            f"{member.filename} takes {member.compress_size:,} bytes and would unpack to {member.file_size:,}, more than "
            f"{_MOST_TIMES} times as many; pack it without compression"
        )
