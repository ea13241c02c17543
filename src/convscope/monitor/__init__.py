"""A look at a network while it learns: filters, dead channels, sparsity, gradients, on a page and in TensorBoard.

In a loop of one's own, three lines::

    monitor = convscope.Monitor(model, "runs/digits")
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        monitor.step(loss)                   # between backward and the optimiser's step
        optimizer.step()
    monitor.close()

With Lightning, one: ``Trainer(callbacks=[convscope.LightningMonitor("runs/digits")])``.

``runs/digits/monitor.html`` is one self-contained page that renews itself; TensorBoard reads the same folder. The
weights come out bitwise the same with and without it, since it only reads, and uses no random numbers. It looks at
every step that is a multiple of ``every`` and at no other, so that what it costs can be chosen; its page says what it
cost.
"""

from convscope.monitor.lightning import LightningMonitor
from convscope.monitor.loop import Monitor
from convscope.monitor.measure import Record

__all__ = ["LightningMonitor", "Monitor", "Record"]
