// SPDX-License-Identifier: Apache-2.0

import type { AddressOwner } from '#allocator'
import type { Call, Result } from '#cni'
import type { World } from '../../world.ts'
import type { Choice } from './choice.ts'
import type { Config } from './config.ts'

/** What an attachment gets; with `interfaces` where the addresses are those of a NIC that the interface plugin is to take. */
export type Given = Required<Pick<Result, 'ips' | 'dns'>> & Pick<Result, 'interfaces'>

/**
 * One way to get addresses of Neutron, a mode of `tcnp-ipam`. The journal says which attachment holds what of which mode, so
 * that releases need no configuration: one that changed, or is not valid any more, keeps no address.
 */
export type Source = {
  /**
   * Addresses for an attachment, usable on the wire when this returns. All or nothing. What `choice` says takes the place
   * of what the configuration says; what a mode cannot do of it is refused by name.
   * @throws {CniError} {OpenStackError} {AllocationError}
   */
  acquire(config: Config, call: Call, world: World, choice: Choice): Promise<Given>
  /** Gives back what an attachment holds, if anything: recorded at once, the cloud is told later. */
  release(call: Call, world: World): Promise<void>
  /** The same for all attachments of the call's network that are not living; what is younger than `beforeMs` stays. */
  releaseOthers(call: Call, world: World, isLiving: (owner: AddressOwner) => boolean, beforeMs: number): Promise<void>
  /** True if the journal knows addresses of this mode for the attachment. */
  holds(owner: AddressOwner, world: World): boolean
  /** What is wrong with the addresses of an attachment, in words. */
  findFaults(config: Config, call: Call, world: World): Promise<readonly string[]>
  /** STATUS: finds out whether an ADD could be served. @throws the error that it would get */
  examine(config: Config, world: World): Promise<void>
}

export const ownerOf = ({ network, containerId, ifName }: Call): AddressOwner => ({ network, containerId, ifName })
