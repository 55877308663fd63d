"""The sections of a report: each takes the study and gives its HTML, or says which command would fill it."""
