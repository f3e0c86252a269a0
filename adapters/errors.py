"""Everything the contract can refuse, as types. Each message ends with what to do.

    ContractError
    ├── InvalidRef          a name that is not `tenant/name@version`
    ├── InvalidAdapter      a directory that must not be served
    ├── InvalidExample      a row that is not an Example; says which line
    ├── AdapterMissing      no such version in the store
    └── AdapterCorrupted    a version whose bytes are not those that were published
"""


class ContractError(Exception):
    """Base of the contract's errors; `str(error)` is a sentence for people."""


class InvalidRef(ContractError, ValueError):
    pass


class InvalidAdapter(ContractError):
    pass


class InvalidExample(ContractError, ValueError):
    pass


class AdapterMissing(ContractError, LookupError):
    pass


class AdapterCorrupted(ContractError):
    pass
