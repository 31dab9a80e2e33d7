"""Other names of indices on the shelf, as papers and other programs write them."""

ALIASES = {
    "D4000_n": "Dn4000",
    "D4000n": "Dn4000",
    "Hb": "Hbeta",
    "H_beta": "Hbeta",
    "HdA": "HdeltaA",
    "HdF": "HdeltaF",
    "HgA": "HgammaA",
    "HgF": "HgammaF",
    "HDeltaA": "HdeltaA",
    "HDeltaF": "HdeltaF",
    "HGammaA": "HgammaA",
    "HGammaF": "HgammaF",
    "Hdelta_A": "HdeltaA",
    "Hdelta_F": "HdeltaF",
    "Hgamma_A": "HgammaA",
    "Hgamma_F": "HgammaF",
    "CN_1": "CN1",
    "CN_2": "CN2",
    "Fe4668": "C2_4668",
    "C24668": "C2_4668",
    "C4668": "C2_4668",
    "Mg_1": "Mg1",
    "Mg_2": "Mg2",
    "Mg_b": "Mgb",
    "Mgb5177": "Mgb",
    "Na_D": "NaD",
    "Na5895": "NaD",
    "TiO_1": "TiO1",
    "TiO_2": "TiO2",
    "TiO2SDSS": "TiO2sdss",
    "CaT*": "CaT_star",
    "CaII1": "Ca1",
    "CaII2": "Ca2",
    "CaII3": "Ca3",
    "<Fe>": "Fe_mean",
    "[MgFe]": "MgFe",
    "[MgFe]'": "MgFe_prime",
}


def canonical(name: str) -> str:
    """The name on the shelf, if this is another one of it; else the name itself.

    Examples
    --------
    >>> canonical("Fe4668"), canonical("Mgb")
    ('C2_4668', 'Mgb')
    """
    return ALIASES.get(name, name)
