// SPDX-License-Identifier: Apache-2.0

/** The list of extensions: those of a current Neutron that the simulator answers for. */
import type { Answer, Call, RouteTable } from '../call.ts'
import { Fault } from '../fault.ts'

const extensions: Readonly<Record<string, string>> = {
  'allowed-address-pairs': 'Allowed Address Pairs',
  binding: 'Port Binding',
  'empty-string-filtering': 'Empty String Filtering Extension',
  'ext-gw-mode': 'Neutron L3 Configurable external gateway mode',
  'external-net': 'Neutron external network',
  extraroute: 'Neutron Extra Route',
  'extraroute-atomic': 'Atomically add/remove extra routes',
  'filter-validation': 'Filter parameters validation',
  'fip-port-details': 'Add port_details to Floating IP',
  'ip-substring-filtering': 'IP address substring filtering',
  'net-mtu': 'Network MTU',
  'network-ip-availability': 'Network IP Availability',
  pagination: 'Pagination support',
  'port-security': 'Port Security',
  'project-id': 'project_id field enabled',
  provider: 'Provider Network',
  quota_details: 'Quota details management support',
  quotas: 'Quota management support',
  'revision-if-match': 'If-Match constraints based on revision_number',
  router: 'Neutron L3 Router',
  'security-group': 'security-group',
  sorting: 'Sorting support',
  'standard-attr-description': 'standard-attr-description',
  'standard-attr-revisions': 'Resource revision numbers',
  'standard-attr-tag': 'Tag support for resources with standard attribute',
  'standard-attr-timestamp': 'Resource timestamps',
  'tag-ports-during-bulk-creation': 'Tag Ports During Bulk Creation',
  trunk: 'Trunk Extension',
  'trunk-details': 'Trunk port details',
}

const view = (alias: string) => ({
  name: extensions[alias],
  alias,
  description: extensions[alias],
  updated: '2019-07-10T00:00:00+00:00',
  links: [],
})

function showExtension(call: Call): Answer {
  const alias = call.parameters['alias'] ?? ''
  if (extensions[alias] === undefined) throw new Fault(404, 'WEB', `Extension with alias ${alias} does not exist`)
  return { status: 200, body: { extension: view(alias) } }
}

export const extensionRoutes: RouteTable = [
  ['GET', '/v2.0/extensions', () => ({ status: 200, body: { extensions: Object.keys(extensions).map(view) } })],
  ['GET', '/v2.0/extensions/:alias', showExtension],
]
