"""What is wrong with a server, a URL and a table, and the lines that mend it: `examine`."""

from .examination import examine
from .findings import Finding, Mend, Report, Where

__all__ = ["Finding", "Mend", "Report", "Where", "examine"]
