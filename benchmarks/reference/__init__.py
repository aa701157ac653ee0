"""The published MOTH as it is: sequential, one pair at a time. A rival to measure against, never part of the package.

Written anew from the paper (Tao et al., IEEE S&P 2022) and from what its public PyTorch code does. It takes the
package's Subject and Samples, so that both work on the same model and the same images.

Mended, because without it nothing happens or the result hangs on what ran before:

1. A batch of training images is topped up from per-class pools until it holds ten images of both classes of the pair;
   the published code stamps a tenth of the images, which is none below ten, and then skips the training step, its own
   step counter and the choice of another pair.
2. Evaluation mode (frozen batch-norm statistics, no dropout) is asked for; there, inversion switches to it and nothing
   switches back.
3. The minibatch is 32 or the number of images in each call; there, it shrinks to the smallest number ever seen and
   stays there.
4. The scheduler's gains are left at 0 if every universal trigger fails; there, they are divided by 0.
5. A class is never paired with itself; there, it is when every other priority is negative.
6. Files, printing and the test accuracy every ten steps are left out, which makes the reference a little faster.

Kept, although better is possible: fixed numbers of steps (500, 200, 50); one pair per three training steps; a summed
loss for pairs, a mean one for universal triggers; images dropped when a pair's last minibatch is not full, and a
minibatch without one direction counted as that direction's failure; success as the mean over minibatches of a moving
trigger, stored as the last minibatch saw it; the other direction rolled back by one update when one is stored; Adam's
moments kept over the re-starts; values clipped to exactly 0 and 1; loss changes of the warm-up that are 1 for every
pair unless all images fit one minibatch; starts stored by ascending class but used by (source, target); sizes of failed
directions repeated; matrices of the scheduler that become one when a universal trigger failed; weight gradients
computed in every inversion step (``Search.weight_gradients`` switches them off, for measuring).
"""
