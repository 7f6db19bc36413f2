"""What a caller may use: tenants, their scopes, their upstream keys and their objects.

scopes.py       what a scope covers
policy.py       may this principal do this, and why
headers.py      run-as headers in every spelling
registry.py     the tenants of this process
directory.py    where they come from: tenant_file.py, and stored.py over records.py, with overrides.py
operations.py   what operators change at run time
key_source.py   where keys come from: vault.py with vault_login.py, cipher.py, and the settings' references
credentials.py  which key a request uses, by the rules of rotation.py
promotion.py    rotations that end by themselves
ownership.py    who made which object, by the ids that object_ids.py finds
"""

from cbk_gateway.tenancy.headers import account_acted_on, is_run_as_header, requested_run_as
from cbk_gateway.tenancy.policy import Explanation, authorise, explain
from cbk_gateway.tenancy.registry import Change, Registry
from cbk_gateway.tenancy.scopes import ScopeSet, Verdict, covers, needed_scope, scope_set

__all__ = [
    "Change",
    "Explanation",
    "Registry",
    "ScopeSet",
    "Verdict",
    "account_acted_on",
    "authorise",
    "covers",
    "explain",
    "is_run_as_header",
    "needed_scope",
    "requested_run_as",
    "scope_set",
]
