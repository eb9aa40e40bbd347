"""Which job goes to which backend: one task that asks for all places at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from comfyserve.dispatcher.desk import Desk
from comfyserve.dispatcher.lane import Lane
from comfyserve.jobs import Claim, Offer
from comfyserve.refusals import LeaseLost, StoreUnavailable

log = logging.getLogger(__name__)

STORE_PAUSE: Final = 1.0
"""Seconds before the store is asked again that has just failed."""


class Matching:
    """Gives the jobs that wait to the *lanes* that have room, one after the other, for as long as
    it runs; *start* is called with each. Whose backend went meanwhile goes back to the queue, or,
    where the store does not take it, to those that *leave* notes.

    It asks the queue only where something may come of it: a lane has room for jobs of a pool in
    which some may wait. Whoever makes such a thing true calls `stir`.
    """

    def __init__(
        self,
        desk: Desk,
        lanes: Mapping[str, Lane],
        start: Callable[[Claim, Lane], None],
        leave: Callable[[str], None],
    ) -> None:
        self._desk = desk
        self._queue = desk.queue
        self._lanes = lanes
        self._start = start
        self._leave = leave
        self._stirred = asyncio.Event()
        # The pools in which no job waited when the queue was asked last, unless some came since.
        self._has_news = True
        self._empty: set[str] = set()
        # Places that were offered in vain since then, though jobs may wait for them.
        self._in_vain: set[Offer] = set()
        self._queue.heed_work(self._hear_of_work)

    def stir(self) -> None:
        """A lane may have room, or abilities, that it had not."""
        self._stirred.set()

    async def run(self) -> None:
        """Match job after job; ends only by being canceled."""
        while True:
            await self._match()

    async def _match(self) -> None:
        """Claim one job if there may be one, else wait until there may."""
        # Cleared before looking, so that what comes meanwhile is not slept through.
        self._stirred.clear()
        if self._has_news:
            self._has_news = False
            self._empty.clear()
            self._in_vain = set()
        offers = self._offers()
        pools = {pool for offer in offers for pool in offer.pools}
        places = {replace(offer, wait=0.0) for offer in offers}
        if pools <= self._empty or places == self._in_vain:
            await self._stirred.wait()
            return
        try:
            claim = await self._claim(offers)
        except Exception as error:
            is_known = isinstance(error, StoreUnavailable)
            log.warning("No job can be claimed: %s", error, exc_info=not is_known)
            await asyncio.sleep(STORE_PAUSE)
            return
        if claim is None and any(offer.only_warm for offer in offers):
            self._in_vain = places
        elif claim is None or not claim.more_wait:
            self._empty |= pools
        if claim is not None:
            await self._hand_over(claim)

    def _offers(self) -> Sequence[Offer]:
        """The places that there are; those that are free at once come first."""
        pools = self._queue.waiting_pools()
        offers = (lane.offer(pools) for lane in self._lanes.values())
        return sorted((one for one in offers if one is not None), key=lambda one: one.wait)

    def _hear_of_work(self) -> None:
        """A job may wait where none did when we asked last."""
        self._has_news = True
        self._stirred.set()

    async def _claim(self, offers: Sequence[Offer]) -> Claim | None:
        """The next job; one that is claimed while we are told to stop goes back at once."""
        claiming = asyncio.ensure_future(
            self._queue.claim(self._desk.holder, offers, lease=self._desk.lease)
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(StoreUnavailable, LeaseLost):
                if (claim := await claiming) is not None:
                    await self._give_back(claim)
            raise

    async def _hand_over(self, claim: Claim) -> None:
        lane = self._lanes.get(claim.record.backend or "")
        if lane is not None and lane.is_open:
            self._start(claim, lane)
            return
        # The backend went while we asked; nothing was begun there.
        try:
            with suppress(LeaseLost):
                await self._desk.write(claim.record.id, lambda: self._give_back(claim))
        except StoreUnavailable as error:
            log.error("A job is left as it is for now: %s", error)
            self._leave(claim.record.id)

    async def _give_back(self, claim: Claim) -> None:
        await self._queue.requeue(claim.lease, counts=False)
