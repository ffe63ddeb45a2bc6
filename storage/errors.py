"""What can go wrong in storage, in words a PACS administrator understands: what, which object, what to do."""


class StorageError(Exception):
    """Something could not be stored, found or trusted."""


class UnreadableInstance(StorageError):
    """The bytes are not a DICOM Part 10 instance that can be indexed. Nothing was stored."""


class MismatchedInstance(StorageError):
    """The data set is not the instance that the C-STORE request announced (PS3.4 B.2.3). Nothing was stored."""


class InvalidDigest(StorageError):
    """A name that is not a SHA-256 in lower-case hexadecimal was used to address the object store."""


class ObjectMissing(StorageError):
    """The object store holds no object of this digest."""


class IntegrityError(StorageError):
    """The bytes of a stored object no longer have the digest that names them."""


class ObjectStoreUnavailable(StorageError):
    """The object store's volume refused a read or a write: full, read-only or failing."""


class IndexUnavailable(StorageError):
    """The SQL index could not commit: locked, unreachable or full. Nothing was acknowledged."""


class InvalidToken(StorageError):
    """An access token could not be created as asked."""
