// SPDX-License-Identifier: Apache-2.0

import {
  type AddressOwner,
  type Attachment,
  type CloudObject,
  type Journal,
  listAttachments,
  listKnownPorts,
  listObjectPools,
  listObjects,
  listPortAddresses,
  type ObjectState,
  type PortAddress,
} from '#allocator'
import { compareIp, parseIp } from '#base'
import { podOf } from './pod.ts'

/** Who has an address: the attachment, and its pod where the runtime named one. */
export type Holder = AddressOwner & {
  /** `NAMESPACE/NAME`. */
  readonly pod: string | null
}

/** One address of Neutron that the journal of this node knows, or an object of the cloud without one. */
export type Lease = {
  /** Null for an object that has none, or none yet. */
  readonly address: string | null
  readonly state: PortAddress['state'] | ObjectState
  /** `address`: one of a port that has others too. Else the whole port is the lease, and this is the mode that made it. */
  readonly kind: string
  /** Empty while it is being made. */
  readonly portId: string
  /** The pool of a lease that is a whole port; null for an address, whose pool is its port. */
  readonly pool: string | null
  /** Ours, in the port's name, where the whole port is the lease. */
  readonly mark: string | null
  readonly subnetId: string | null
  readonly holder: Holder | null
  /** The floating IP that led to it when its port was last looked at. */
  readonly floatingIp: string | null
  /** Why it is in quarantine, in words, where its driver has said so. */
  readonly flaw: string | null
  /** From this moment (ms since 1970) it may be given to a pod. */
  readonly usableMs: number
  /** Since when it has its state, ms since 1970. */
  readonly changedMs: number
}

/** Every address of Neutron that the journal knows, in their order; what has none comes last. */
export function listLeases(journal: Journal): Lease[] {
  const nameOf = holderNames(journal)
  const kinds = new Map(listObjectPools(journal).map(({ pool, kind }) => [pool, kind]))
  const leases = [
    ...listKnownPorts(journal)
      .flatMap(({ portId }) => listPortAddresses(journal, portId))
      .map(each => addressLease(each, nameOf)),
    ...listObjects(journal).flatMap(each => objectLeases(each, kinds.get(each.pool) ?? '', nameOf)),
  ]
  return leases
    .map(lease => ({ lease, ip: lease.address === null ? undefined : parseIp(lease.address) }))
    .sort((a, b) => (a.ip && b.ip ? compareIp(a.ip, b.ip) : Number(a.ip === undefined) - Number(b.ip === undefined)))
    .map(({ lease }) => lease)
}

type NameOf = (owner: AddressOwner) => Holder

function addressLease(each: PortAddress, nameOf: NameOf): Lease {
  const { address, state, portId, subnetId, owner, floatingIp, usableMs, changedMs } = each
  return {
    ...{ address, state, kind: 'address', portId, pool: null, mark: null, subnetId, usableMs, changedMs },
    holder: owner === undefined ? null : nameOf(owner),
    floatingIp: floatingIp ?? null,
    flaw: null,
  }
}

function objectLeases(object: CloudObject, kind: string, nameOf: NameOf): Lease[] {
  const { state, id: portId, mark, owner, addresses, usableMs, changedMs } = object
  const holder = owner === undefined ? null : nameOf(owner)
  const flaw = object.flaw === '' ? null : object.flaw
  const lease = { state, kind, portId, pool: object.pool, mark, holder, floatingIp: null, flaw, usableMs, changedMs }
  if (addresses.length === 0) return [{ ...lease, address: null, subnetId: null }]
  return addresses.map(({ address, subnetId }) => ({ ...lease, address, subnetId }))
}

/** Names attachments by their pods. The journal is read once, when the first is asked for. */
function holderNames(journal: Journal): (owner: AddressOwner) => Holder {
  const keyOf = ({ network, containerId, ifName }: AddressOwner) => JSON.stringify([network, containerId, ifName])
  let known: Map<string, Attachment> | undefined
  return ({ network, containerId, ifName }) => {
    known ??= new Map(listAttachments(journal).map(each => [keyOf(each), each]))
    const attachment = known.get(keyOf({ network, containerId, ifName }))
    const pod = attachment === undefined ? undefined : podOf(attachment)
    return { network, containerId, ifName, pod: pod === undefined ? null : `${pod.namespace}/${pod.name}` }
  }
}

/** As a reader knows a holder: by its pod, else by its container. */
export const describeHolder = ({ network, containerId, ifName, pod }: Holder): string =>
  `${ifName} of ${pod ?? containerId} in network ${network}`
