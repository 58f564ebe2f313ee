"""Curation (Sec. 3.5): from raw captioned videos to the Salient data set, with a reason for every clip.

`measures/` has the steps, pure functions of pictures. `measure.py` applies them to a clip, `worker.py` does so in
child processes, `judge.py` compares the scores with the limits, `driver.py` goes through a data set, and
`table.py` and `report.py` write what came out.
"""
