"""Stars: radial velocity and first parameters from raw and from denoised spectra."""
