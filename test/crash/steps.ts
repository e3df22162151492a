// SPDX-License-Identifier: Apache-2.0

// What the crash tests share: the steps at which something is killed, and how often.

import { type Attachment, makeNetns, type Node, resultOf } from '../nodelab.ts'
import { isWholeRun } from '../whole-run.ts'

// `./mooring test` takes each sixth step, `--all` each step three times.
const [TIMES, STRIDE] = isWholeRun ? [3, 1] : [1, 6]
/** What an ADD or DEL does to the world: netlink, journal and leases, namespaces. */
const STEPS = ['sendto', 'pwrite64', 'link', 'unlink', 'setns']
export const STEPS_MAX = 100

let containers = 0
/** A container that does not exist yet, with a namespace of its own. */
export const newPod = (): Attachment => ({ containerId: `c${containers++}`, netns: makeNetns('pod').path })

/** Keys of the configuration that make the most steps. */
export const more = { ipMasq: true }

/** What stays on a node for good once a first pod came and went. */
export async function keptBy(node: Node): Promise<string[]> {
  const it = newPod()
  resultOf(await node.call('ADD', it, { more }))
  resultOf(await node.call('DEL', it, { more }))
  return node.state()
}

/**
 * Calls `kill` with each step until one was not reached.
 * @param isThorough false for what is much like something else: then each third step is enough for `--all`
 * @returns the steps that were hit
 */
export async function eachStep(
  kill: (syscall: string, when: number) => Promise<string | undefined>,
  { steps = STEPS, isThorough = true }: { steps?: readonly string[]; isThorough?: boolean } = {},
): Promise<string[]> {
  const [times, stride] = isThorough ? [TIMES, STRIDE] : [1, Math.max(STRIDE, 3)]
  const hit: string[] = []
  for (const syscall of steps)
    for (let when = 1; when <= STEPS_MAX; when += stride)
      for (let time = 1; time <= times; time++) {
        const step = await kill(syscall, when)
        if (step !== undefined) hit.push(step)
        else when = STEPS_MAX
      }
  return hit
}
