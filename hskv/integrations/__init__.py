"""hskv as a part of other packages; each module needs the package it is named after."""
