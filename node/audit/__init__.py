"""The audit trail in DICOM's audit message format (PS3.15 A.5): who connected, what went where, what was refused.

Use: ``audit.trail().node_refused(RemoteNode("10.0.0.9", "SKYRA"), "wrong certificate")``. `running` sets it up.
"""

from node.audit.codes import Action
from node.audit.recorder import AuditTrail, RemoteNode, installed, running, trail
from node.audit.transfers import Transfer, TransferCounter

__all__ = ["Action", "AuditTrail", "RemoteNode", "Transfer", "TransferCounter", "installed", "running", "trail"]
