// SPDX-License-Identifier: Apache-2.0

import { EEXIST } from '#libc'
import { NetlinkError } from '#netlink'
import { addLink, getLink, readLinkAttribute, readLinkIndex } from '#rtnetlink'
import type { HostContext } from './context.ts'

/** A veth pair of which one end is the node's and one the pod's. */
export type Pair = {
  /** Name of the node's end. */
  hostLink: string
  /** Name of the pod's end. */
  ifName: string
  /** The pod's namespace. */
  netnsFd: number
  mtuBytes: number
  hostMac: Uint8Array
  podMac: Uint8Array
  /** The bridge of which the node's end becomes a port. */
  masterIndex?: number
}

/** NetlinkError.request of the request that makes the pair: EEXIST there means that one of the two names is taken. */
export const makesPair = (hostLink: string): string => `add veth pair ${hostLink}`

/**
 * What the kernel uses of a pair in any case. Unless told so it makes a queue for each processor, takes all but the first away
 * again, and keeps their room.
 */
const ONE_QUEUE = { txQueues: 1, rxQueues: 1 } as const

/**
 * Makes a pair, the pod's end in the pod's namespace from the beginning: moving one there takes 14-27 ms.
 * @returns the indices of both ends. @throws {NetlinkError} EEXIST where one of the names is taken
 */
export function createPair({ route }: HostContext, pair: Pair): { index: number; peer: number } {
  const { hostLink, ifName, mtuBytes: mtu, netnsFd, masterIndex } = pair
  const request = addLink({
    ifname: hostLink,
    mtu,
    ...ONE_QUEUE,
    // Both MACs are set, so that udev leaves them alone and what is written about them stays true.
    address: pair.hostMac,
    ...(masterIndex === undefined ? {} : { master: masterIndex }),
    linkinfo: { kind: 'veth', data: { peer: { ifname: ifName, mtu, ...ONE_QUEUE, address: pair.podMac, netnsFd } } },
  })
  const [, found] = route.execute([{ ...request, about: makesPair(hostLink) }, getLink({ ifname: hostLink })])
  const message = found?.messages[0]
  if (message === undefined) throw new NetlinkError(`find link ${hostLink} just made`, EEXIST)
  return { index: readLinkIndex(message), peer: readLinkAttribute(message, 'link') ?? 0 }
}
