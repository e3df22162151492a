// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto'
import type { AttachmentKey } from '#allocator'
import { localMac } from '#base'

/** IFLA_IFALIAS of every link of ours on the node begins so; the plugin's type and the attachment follow. */
export const OWNER_PREFIX = 'mooring '
/** IFALIASZ is 256. */
const OWNER_LENGTH_MAX = 250

/** Everything about an attachment's veth pair that follows from its key, so that DEL finds it without any record. */
export type LinkNames = {
  /** Names for the node's end, to be tried in this order: a short hash may be another's. */
  hostLinks: string[]
  owner: string
  hostMac: Uint8Array
  podMac: Uint8Array
}

/** @param key network, container, interface and type: plugins of one chain make a pair each for one interface name */
export function linkNames({ network, containerId, ifName, type }: AttachmentKey): LinkNames {
  const hash = createHash('sha256').update(`${network}\0${containerId}\0${ifName}\0${type}`).digest()
  const hex = hash.toString('hex')
  const written = `${OWNER_PREFIX}${type} ${network} ${containerId} ${ifName}`
  return {
    hostLinks: [0, 8, 16, 24].map(from => `veth${hex.slice(from, from + 8)}`),
    owner: Buffer.byteLength(written) > OWNER_LENGTH_MAX ? `${OWNER_PREFIX}${type} ${hex}` : written,
    hostMac: localMac(hash.subarray(16, 22)),
    podMac: localMac(hash.subarray(22, 28)),
  }
}
