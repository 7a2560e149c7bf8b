"""Settings with the unit of the label, whose default is counted in label bins."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InBins:
    """Mark of a setting whose published default belongs to ages, which are binned by the year.

    Where a study does not give the setting, it is that number of label bins of the data set (`dirtune.data.label_units`): one
    year of ages and 3 MPa of strengths that are binned by 3 MPa. The default of the class is for its use without data.
    """

    power: int = 1
    """1: the setting is a difference of labels; -1: it is per unit of the label."""
    of_loss: bool = False
    """The setting belongs to a regression loss, which gets labels divided by `model.label_scale`."""

    def convert(self, number: float, bin_width: float, label_scale: float) -> float:
        """Return a number of bins, or a number per bin, in the unit of the setting, rounded to six significant digits."""
        width = bin_width / label_scale if self.of_loss else bin_width
        return float(f"{number * width**self.power:.6g}")
