// SPDX-License-Identifier: Apache-2.0

// The thread that `threadedHost` starts for what blocks: enters the node's namespace once, then begins calls in order.

import { parentPort, workerData } from 'node:worker_threads'
import { setNetworkNamespace } from '#libc'
import { HostContext } from './context.ts'
import type { WorkerCall, WorkerReply } from './host.ts'
import { LostThreadError, tryOpenNetns } from './netns.ts'
import { verbs } from './verbs.ts'
import { packError } from './wire-error.ts'

const { netnsPath } = workerData as { netnsPath: string | undefined }
if (netnsPath !== undefined) {
  const fd = tryOpenNetns(netnsPath)
  if (fd === undefined) throw new Error(`Cannot work in the namespace "${netnsPath}": no network namespace is there`)
  setNetworkNamespace(fd)
}
const context = new HostContext()
const post = (reply: WorkerReply) => parentPort!.postMessage(reply)

parentPort!.on('message', async ({ id, verb, args }: WorkerCall) => {
  try {
    post({ id, value: await (verbs[verb] as (context: HostContext, args: unknown) => unknown)(context, args) })
  } catch (error) {
    if (error instanceof LostThreadError) throw error
    post({ id, error: packError(error) })
  }
})
post({ ready: true })
