"""How connections to PostgreSQL notice that the other side is gone.

A host that loses its power or its network says no goodbye. Without this its session at the server would keep the locks
it held for hours, and a client would wait as long for a server that is gone.
"""

from typing import Any

IDLE_S, INTERVAL_S, PROBES = 5, 2, 3
"""A silent peer is asked after IDLE_S, then every INTERVAL_S; gone after PROBES without an answer: 11 s in all."""
IDLE_IN_TRANSACTION_S = 600
"""A frozen process answers such questions (its kernel does); its transaction is ended after this time.

Longer than it takes to fetch the largest object from a bucket: headers are read within a transaction.
"""

_SERVER_SIDE = {
    "tcp_keepalives_idle": IDLE_S,
    "tcp_keepalives_interval": INTERVAL_S,
    "tcp_keepalives_count": PROBES,
    "tcp_user_timeout": (IDLE_S + INTERVAL_S * PROBES) * 1000,
    "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_S * 1000,
}

CONNECT_ARGUMENTS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": IDLE_S,
    "keepalives_interval": INTERVAL_S,
    "keepalives_count": PROBES,
    "tcp_user_timeout": (IDLE_S + INTERVAL_S * PROBES) * 1000,
    "options": " ".join(f"-c {name}={value}" for name, value in _SERVER_SIDE.items()),
}
"""For SQLAlchemy's ``connect_args`` with psycopg (PostgreSQL manual 34.1.2 and 20.3.2)."""
