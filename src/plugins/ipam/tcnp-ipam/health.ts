// SPDX-License-Identifier: Apache-2.0

import type { CloudSession, Health, Level } from '#openstack'

const LEVELS: readonly Level[] = ['normal', 'allocate-only', 'serve-held']

/** What may be asked of the services that a mode needs: with NICs, whose ports are Neutron's, that of the sicker one. */
export function healthOf({ health }: Pick<CloudSession, 'health'>, mode: string): Health {
  const network = health('network')
  if (mode !== 'eni') return network
  const compute = health('compute')
  return LEVELS.indexOf(compute.level) < LEVELS.indexOf(network.level) ? network : compute
}
