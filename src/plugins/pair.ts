// SPDX-License-Identifier: Apache-2.0

import type { AttachmentKey } from '#allocator'
import { localMac, sha256Hex } from '#base'
import { CniError, codes } from '#cni'
import { makesPair } from '#host'
import { EEXIST } from '#libc'
import { NetlinkError } from '#netlink'
import type { At } from './interface.ts'

/** IFLA_IFALIAS of every link of ours on the node begins so; the plugin's type and the attachment follow. */
export const OWNER_PREFIX = 'mooring '
/** IFALIASZ is 256, but the comment of an nf_tables element, which says the same, is shorter (NFTNL_UDATA_COMMENT_MAXLEN). */
const OWNER_LENGTH_MAX = 127

/** Everything about an attachment's veth pair that follows from its key, so that DEL finds it without any record. */
export type LinkNames = {
  /** Names for the node's end, to be tried in this order: a short hash may be another's. */
  hostLinks: string[]
  owner: string
  hostMac: Uint8Array
  podMac: Uint8Array
}

/** A call asks several times, always with the one key that it has. */
const known = new WeakMap<AttachmentKey, LinkNames>()

/** @param key network, container, interface and type: plugins of one chain make a pair each for one interface name */
export function linkNames(key: AttachmentKey): LinkNames {
  const names = known.get(key) ?? makeLinkNames(key)
  known.set(key, names)
  return names
}

function makeLinkNames({ network, containerId, ifName, type }: AttachmentKey): LinkNames {
  const hex = sha256Hex(`${network}\0${containerId}\0${ifName}\0${type}`)
  const written = `${OWNER_PREFIX}${type} ${network} ${containerId} ${ifName}`
  return {
    hostLinks: [0, 8, 16, 24].map(from => `veth${hex.slice(from, from + 8)}`),
    owner: Buffer.byteLength(written) > OWNER_LENGTH_MAX ? `${OWNER_PREFIX}${type} ${hex}` : written,
    hostMac: localMac(Uint8Array.fromHex(hex.slice(32, 44))),
    podMac: localMac(Uint8Array.fromHex(hex.slice(44, 56))),
  }
}

/** True where a pair could not be made because a link, on the node or in the container, has the name already. */
export const isNameTaken = (error: unknown, hostLink: string): boolean =>
  error instanceof NetlinkError && error.errno === EEXIST && error.request === makesPair(hostLink)

/**
 * Makes something under the first of the host link's names that is not another's.
 * @param inPod key of the configuration that names the container's end, and the name; CNI_IFNAME where left out
 * @throws {CniError} 104 where it is the container that has an interface of the name
 */
export async function underFreeName<T>(
  { call, world, key }: At,
  make: (hostLink: string) => Promise<T>,
  inPod: InPod = { key: 'CNI_IFNAME', ifName: call.ifName },
): Promise<T> {
  const { hostLinks, owner } = linkNames(key)
  for (const hostLink of hostLinks) {
    try {
      return await make(hostLink)
    } catch (error) {
      if (!isNameTaken(error, hostLink)) throw error
      const found = await world.host.describeLink({ name: hostLink })
      if (found === undefined) throw nameTaken(inPod, error)
      if (found.owner === owner) throw error
    }
  }
  throw new CniError(codes.kernel, `Cannot attach ${call.ifName}: the names ${hostLinks.join(', ')} are taken`, {
    details: 'remove the links that nobody needs any more: ip -d link show type veth',
  })
}

type InPod = { readonly key: string; readonly ifName: string }

const nameTaken = ({ key, ifName }: InPod, cause: unknown) =>
  new CniError(codes.duplicateAttachment, `Cannot attach ${ifName}: the container has an interface of that name`, {
    details: `choose another ${key}, or delete the earlier attachment first`,
    cause,
  })
