"""BERT (Devlin et al. 2019, arXiv:1810.04805; small sizes of Turc et al. 2019, arXiv:1908.08962)."""
