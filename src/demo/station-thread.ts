// SPDX-License-Identifier: Apache-2.0

// The thread of a station. Node.js makes sockets on the thread that asks for them and starts processes from it, so both
// belong to the namespace that the thread has entered.

import { closeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { formatIp, formatMac } from '#base'
import { HostContext, inlineHost, tryOpenNetns } from '#host'
import { setNetworkNamespace } from '#libc'
import { readAddresses, readKernel } from './kernel.ts'
import { ask, echo, trace } from './packets.ts'
import { run } from './process.ts'
import type { Reply, Request } from './station.ts'
import type { Orders, Verb } from './wire.ts'

const { netns } = workerData as { netns: string }
const fd = tryOpenNetns(netns)
if (fd === undefined) throw new Error(`Cannot enter ${netns}: it is no network namespace`)
setNetworkNamespace(fd)
closeSync(fd)

const handlers: {
  readonly [V in Verb]: (order: Orders[V]['order']) => Promise<Orders[V]['answer']> | Orders[V]['answer']
} = {
  echo: ({ address }) => echo(address),
  ask,
  trace,
  run,
  uplink: async () => {
    using context = new HostContext()
    const uplink = await inlineHost(context).findUplink({})
    return (
      uplink && {
        name: uplink.name,
        mac: formatMac(uplink.mac),
        addresses: uplink.addresses.map(({ ip }) => formatIp(ip)),
      }
    )
  },
  addresses: () => look(readAddresses),
  kernel: () => look(readKernel),
}

function look<T>(read: (context: HostContext) => T): T {
  using context = new HostContext()
  return read(context)
}

parentPort!.on('message', async ({ id, verb, order }: Request) => {
  let reply: Reply
  try {
    reply = { id, answer: await (handlers[verb] as (order: unknown) => unknown)(order) }
  } catch (error) {
    reply = { id, error: (error as Error).message }
  }
  parentPort!.postMessage(reply)
})
