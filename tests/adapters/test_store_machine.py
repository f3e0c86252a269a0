"""The store against a model of it: any order of publications (several at once), retirements and openings."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from adapters.ref import AdapterRef
from adapters.store import AdapterStore, Published
from tests.adapters.sample import publish


class StoreMachine(RuleBasedStateMachine):
    """Against a model: a list of contents per name. Publications happen several at once, in threads."""

    published = Bundle("published")

    @initialize()
    def start(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="tuneloop-test-"))
        self.contents: dict[tuple[str, str], list[int]] = {}
        self.digests: dict[AdapterRef, str] = {}
        self.retired: set[AdapterRef] = set()

    def store(self) -> AdapterStore:
        return AdapterStore(str(self.scratch / "store"))

    @rule(
        target=published,
        tenant=st.sampled_from(["acme", "umbrella"]),
        name=st.sampled_from(["support", "a.b"]),
        seeds=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    )
    def publish(self, tenant: str, name: str, seeds: list[int]) -> object:
        def one(seed: int) -> Published:
            return publish(self.store(), self.scratch, seed=seed, tenant=tenant, name=name)

        with ThreadPoolExecutor(len(seeds)) as threads:
            made = list(threads.map(one, seeds))
        known = self.contents.setdefault((tenant, name), [])
        fresh = {made_one.ref.version: seed for seed, made_one in zip(seeds, made, strict=True) if seed not in known}
        assert sorted(fresh) == list(range(len(known) + 1, len(known) + len(set(fresh.values())) + 1))
        known += [fresh[version] for version in sorted(fresh)]
        for seed, one_made in zip(seeds, made, strict=True):
            assert one_made.ref.version == known.index(seed) + 1
            assert self.digests.setdefault(one_made.ref, one_made.digest) == one_made.digest
        return multiple(*{one_made.ref for one_made in made})

    @rule(ref=published)
    def retire(self, ref: AdapterRef) -> None:
        self.store().retire(ref)
        self.retired.add(ref)

    @rule(ref=published)
    def open(self, ref: AdapterRef) -> None:
        assert self.store().open(ref).digest == self.digests[ref]

    @rule(ref=published)
    def get(self, ref: AdapterRef) -> None:
        found = self.store().get(ref)
        assert (found.digest, found.retired) == (self.digests[ref], ref in self.retired)

    @invariant()
    def lists_what_was_published(self) -> None:
        for tenant in {tenant for tenant, _ in self.contents}:
            expected = [
                AdapterRef(tenant, name, version)
                for (owner, name), seeds in sorted(self.contents.items())
                if owner == tenant
                for version in range(1, len(seeds) + 1)
            ]
            assert self.store().refs(tenant) == expected

    def teardown(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)


TestStoreAgainstItsModel = StoreMachine.TestCase
TestStoreAgainstItsModel.settings = settings(
    max_examples=12, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck)
)
