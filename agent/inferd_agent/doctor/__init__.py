"""What is wrong with this installation, and what to do about it: `inferd doctor`.

Every check is a pure function of what a reader found, and says a finding: ok, or a warning or an error with its fix.
Nothing is changed, and nothing here is imported by the daemon.
"""

from inferd_agent.doctor.examination import examine
from inferd_agent.doctor.finding import Finding, Level, exit_code

__all__ = ["Finding", "Level", "examine", "exit_code"]
