"""Everything the contract can refuse, as types. Each message ends with what to do.

ContractError
├── InvalidRef          a name that is not `tenant/name@version`
├── InvalidAdapter      a directory that must not be served
├── InvalidBase         a base model's directory that cannot be described
├── InvalidExample      a row that is not an Example; says which line
├── AdapterMissing      no such version in the store
├── AdapterCorrupted    a version whose bytes are not those that were published
└── StoreUnavailable    the store cannot be read or written now
"""


class ContractError(Exception):
    """Base of the contract's errors; `str(error)` is a sentence for people."""


class InvalidRef(ContractError, ValueError):
    pass


class InvalidAdapter(ContractError):
    pass


class InvalidBase(ContractError):
    pass


class InvalidExample(ContractError, ValueError):
    pass


class AdapterMissing(ContractError, LookupError):
    pass


class AdapterCorrupted(ContractError):
    pass


class StoreUnavailable(ContractError):
    pass
