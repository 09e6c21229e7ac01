"""What the author of a venue or a feed runs against his own adapter, and a clock that tests move by hand.

    def test_my_venue_keeps_the_contract():
        exchange = ToyExchange()  # or your own double, or the exchange's sandbox
        report = check_venue(
            lambda: MyVenue(exchange),
            market_id="BTC-USD",
            fill=lambda venue, order, size: exchange.execute(order.id, size),
            disconnect=lambda venue: exchange.cut(),
            reconnect=lambda venue: exchange.restore(),
        )
        print(report)

Each claim of a contract is one function whose name says it. A broken contract raises ContractBroken, whose text lists all claims:
kept, broken and how, or not checked because a hook is missing. `claims=[name]` checks one of them: parametrize a test over
VENUE_CLAIMS or FEED_CLAIMS to see each as a test of its own.

What cannot be provoked in general comes from hooks; nothing here knows an exchange, and no test framework is imported.
"""

from horizon.testing.clock import FakeClock
from horizon.testing.feed_contract import FEED_CLAIMS, check_feed
from horizon.testing.report import ContractBroken, Outcome, Report
from horizon.testing.toy_exchange import ToyExchange
from horizon.testing.venue_contract import VENUE_CLAIMS, check_venue

__all__ = [
    "FEED_CLAIMS",
    "VENUE_CLAIMS",
    "ContractBroken",
    "FakeClock",
    "Outcome",
    "Report",
    "ToyExchange",
    "check_feed",
    "check_venue",
]
