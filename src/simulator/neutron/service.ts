// SPDX-License-Identifier: Apache-2.0

/** Neutron v2.0 with the extensions that `extension.ts` lists. */
import type { Call, RouteTable } from '../call.ts'
import { availabilityRoutes } from './availability.ts'
import { extensionRoutes } from './extension.ts'
import { floatingIpRoutes } from './floatingip.ts'
import { networkRoutes } from './network.ts'
import { portRoutes } from './port.ts'
import { quotaRoutes } from './quota.ts'
import { routerRoutes } from './router.ts'
import { securityGroupRoutes } from './securitygroup.ts'
import { subnetRoutes } from './subnet.ts'
import { tagRoutes } from './tag.ts'
import { trunkRoutes } from './trunk.ts'

const versions = (call: Call) => ({
  status: 200,
  body: {
    versions: [{ id: 'v2.0', status: 'CURRENT', links: [{ rel: 'self', href: `${call.origin}/v2.0/` }] }],
  },
})

export const networkServiceRoutes: RouteTable = [
  ['GET', '/', versions],
  ...networkRoutes,
  ...subnetRoutes,
  ...portRoutes,
  ...routerRoutes,
  ...floatingIpRoutes,
  ...securityGroupRoutes,
  ...trunkRoutes,
  ...quotaRoutes,
  ...extensionRoutes,
  ...availabilityRoutes,
  ...tagRoutes,
]

/** Only the list of versions is open to everybody. */
export const networkOpen = (_method: string, path: readonly string[]): boolean => path.length === 0
