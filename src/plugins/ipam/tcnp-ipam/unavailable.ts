// SPDX-License-Identifier: Apache-2.0

import { AllocationError, type Journal, type Limits, listPortAddresses } from '#allocator'
import { atMost } from '#base'
import { CniError, codes } from '#cni'
import { type Neutron, OpenStackError, type Port } from '#openstack'
import type { Place } from './host-port.ts'
import { describeSubnet, type Family, type PlaceSubnet } from './subnets.ts'
import { NEXT_ADD } from './to-cni-error.ts'

/** A question that only makes an error clearer. */
const ASK_MS = 3_000

export type Refused = {
  readonly error: unknown
  readonly place: Pick<Place, 'portId' | 'networkId'>
  readonly families: readonly Family[]
}

/** The error for an address that could not be had, with the numbers of every subnet, or whose the address is; others as they are. */
export async function explain(
  { error, place, families }: Refused,
  journal: Journal,
  neutron: Neutron,
  limits: Limits,
): Promise<unknown> {
  if (!(error instanceof AllocationError) || !(error.cause instanceof OpenStackError)) return error
  if (error.subnetIds.length > 0) return explainFull(error, error.cause, place, families, journal)
  if (error.fault !== 'taken') return error
  const addresses = families.flatMap(({ address }) => address ?? [])
  return await explainTaken(error, { networkId: place.networkId, addresses }, neutron, limits)
}

function explainFull(
  error: AllocationError,
  { reason }: OpenStackError,
  { portId }: Pick<Place, 'portId'>,
  families: readonly Family[],
  journal: Journal,
): CniError {
  const full = families.flatMap(each => each.subnets).filter(({ id }) => error.subnetIds.includes(id))
  const states = Map.groupBy(listPortAddresses(journal, portId), each => each.subnetId)
  const texts = full.map(subnet => countsOf(subnet, states.get(subnet.id) ?? []))
  const version = full[0] === undefined ? '' : `IPv${full[0].version} `
  return new CniError(
    codes.addressUnavailable,
    `Cannot give an ${version}address of port ${portId}: none is left in ${texts.join(', nor in ')} (${reason})`,
    {
      details: `delete ports or enlarge a subnet, or name another one in "neutronConf.subnets"; ${NEXT_ADD}`,
      cause: error,
    },
  )
}

function countsOf(subnet: PlaceSubnet, here: readonly { readonly state: string }[]): string {
  const count = (state: string) => here.filter(each => each.state === state).length
  const ours = `this port has ${here.length}, ${count('assigned')} of them with pods`
  return `${describeSubnet(subnet)}: ${subnet.size === undefined ? ours : `of its ${subnet.size} addresses ${ours}`}`
}

/** The error for an address that was chosen and is somebody else's, with the holder as far as Neutron shows it. */
export async function explainTaken(
  error: AllocationError | OpenStackError,
  { networkId, addresses }: { readonly networkId: string; readonly addresses: readonly string[] },
  neutron: Neutron,
  { deadline, signal }: Limits,
): Promise<CniError> {
  const found = await neutron.ports
    .list({ network_id: networkId, ip_address: addresses }, { deadline: atMost(deadline, ASK_MS), signal })
    .catch(() => undefined)
  const text = error instanceof OpenStackError ? error.summary : error.message
  return new CniError(codes.addressUnavailable, `${text}${describeHolders(found)}`, {
    details: 'choose another address, or delete the port that holds it',
    cause: error,
  })
}

function describeHolders(ports: readonly Port[] | undefined): string {
  if (ports === undefined) return ''
  if (ports.length === 0) return '; no port that this user is shown has it'
  const holders = ports.map(
    ({ id, name, device_owner, device_id }) => `port ${id} ("${name}", ${device_owner || 'no owner'} ${device_id})`,
  )
  return `; ${holders.join(', ')} has it`
}
