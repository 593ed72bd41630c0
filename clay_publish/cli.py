"""placeholder, written by the packaging part"""


def main() -> None: ...
