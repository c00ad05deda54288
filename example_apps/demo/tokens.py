"""Tokens for trying the applications by hand: python -m example_apps.demo.tokens

Makes a key, writes its public half to .demo/jwks.json, where the applications' settings look for it, and prints a token
for each caller. The tokens are valid for fifteen minutes; the key is not kept.
"""

from __future__ import annotations

from example_apps.demo.callers import CALLERS
from example_apps.demo.issuer import Issuer
from example_apps.demo.processes import ROOT


def main() -> None:
    """Publish the key and print the tokens as shell variables."""
    folder = ROOT / ".demo"
    folder.mkdir(exist_ok=True)
    issuer = Issuer()
    issuer.publish(folder / "jwks.json")
    for name, claims in CALLERS.items():
        if claims is not None:
            print(f"{name.replace(' ', '_').upper()}={issuer.mint(claims)}")


if __name__ == "__main__":
    main()
