// SPDX-License-Identifier: Apache-2.0

// A thread inside a network namespace: sockets that it opens belong there. See station.ts.

import { createSocket, type Socket } from 'node:dgram'
import { closeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { formatIp, formatMac, formatPrefix, isV4, parsePrefix } from '#base'
import { tryOpenNetns } from '#host'
import { setNetworkNamespace } from '#libc'
import { NETLINK_ROUTE, NetlinkSocket } from '#netlink'
import {
  AF_INET,
  addAddress,
  decodeAddress,
  decodeLink,
  decodeRoute,
  deleteAddress,
  dumpAddresses,
  dumpLinks,
  dumpRoutes,
  getLink,
  IFA_F_NODAD,
  setLink,
} from '#rtnetlink'
import type { Order } from './station.ts'

const PORT = 7007
const fd = tryOpenNetns((workerData as { path: string }).path)
if (fd === undefined) throw new Error(`Cannot enter ${(workerData as { path: string }).path}`)
setNetworkNamespace(fd)
closeSync(fd)
const route = new NetlinkSocket(NETLINK_ROUTE)

const familyOf = (address: string) => (address.includes(':') ? 'udp6' : 'udp4')

/**
 * Says to everybody as whom they are seen. One socket per address, so that the answer comes from the address that was asked.
 */
function echoAt(address: string): Promise<void> {
  const socket = createSocket(familyOf(address))
  socket.on('message', (_message, remote) => socket.send(remote.address, remote.port, remote.address))
  echoes.set(address, socket)
  return new Promise(resolve => socket.bind(PORT, address, resolve))
}
const echoes = new Map<string, Socket>()

const own = route
  .execute([dumpAddresses()])[0]!
  .messages.map(decodeAddress)
  .map(entry => formatIp(entry.prefix.ip))
  .filter(address => !address.includes(':') && !address.startsWith('127.'))
Promise.all(own.map(echoAt)).then(() => parentPort!.postMessage({ id: 0 }))

async function addOwn({ link, prefix: text }: { link: string; prefix: string }): Promise<void> {
  const prefix = parsePrefix(text)
  // An IPv6 address cannot be bound while the kernel looks for duplicates of it.
  const flags = isV4(prefix.ip) ? 0 : IFA_F_NODAD
  route.execute([addAddress({ index: indexOf(link), prefix, flags })])
  await echoAt(formatIp(prefix.ip))
}

function removeOwn({ link, prefix: text }: { link: string; prefix: string }): void {
  const prefix = parsePrefix(text)
  echoes.get(formatIp(prefix.ip))?.close()
  route.execute([deleteAddress({ index: indexOf(link), prefix })])
}

function indexOf(ifname: string): number {
  const message = route.execute([getLink({ ifname })])[0]!.messages[0]
  if (message === undefined) throw new Error(`Cannot find link ${ifname}`)
  return decodeLink(message).index
}

function ask({ from, to, timeoutMs }: { from?: string; to: string; timeoutMs: number }): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  const socket = createSocket(familyOf(to))
  const timer = setTimeout(() => resolve(undefined), timeoutMs)
  socket.on('message', message => resolve(message.toString()))
  // A destination that is not reachable now may be so later.
  socket.on('error', () => undefined)
  socket.bind({ port: 0, ...(from !== undefined && { address: from }) }, () =>
    socket.send('?', PORT, to, () => undefined),
  )
  return promise.finally(() => {
    clearTimeout(timer)
    socket.close()
  })
}

function perform(order: Order): unknown {
  switch (order.what) {
    case 'ask':
      return ask(order)
    case 'addAddress':
      return addOwn(order)
    case 'removeAddress':
      return removeOwn(order)
    case 'fetch':
      return fetch(order.url).then(response => response.status)
    case 'up':
      return void route.execute([setLink({ ifname: order.link }, { up: true })])
    case 'links':
      return route
        .execute([dumpLinks()])[0]!
        .messages.map(decodeLink)
        .map(link => ({ name: link.ifname ?? '', mac: formatMac(link.address ?? new Uint8Array(6)) }))
    case 'routes':
      return route
        .execute([dumpRoutes(AF_INET, { table: 254 })])[0]!
        .messages.map(decodeRoute)
        .map(entry => ({
          destination: entry.destination === undefined ? 'default' : formatPrefix(entry.destination),
          nexthop: entry.gateway === undefined ? undefined : formatIp(entry.gateway),
        }))
  }
}

parentPort!.on('message', async ({ id, order }: { id: number; order: Order }) => {
  try {
    parentPort!.postMessage({ id, answer: await perform(order) })
  } catch (error) {
    parentPort!.postMessage({ id, error: (error as Error).message })
  }
})
