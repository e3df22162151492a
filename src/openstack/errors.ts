// SPDX-License-Identifier: Apache-2.0

// The table of what the services' errors mean for a caller. Types and texts as recorded from Keystone 22, Neutron 21 and
// Nova 26; those of other releases are marked.

/**
 * What a caller can do about an error:
 * - `transient`: the same request may succeed later, without anybody's help;
 * - `conflict`: somebody else changed the thing meanwhile: read it again, then decide again;
 * - `exhausted`: a limit of the network itself is reached: addresses, routes, address pairs;
 * - `quota`: the project's quota is reached;
 * - `auth`: wrong credentials, or a right is missing;
 * - `missing`: the thing named does not exist;
 * - `permanent`: the request is wrong, or collides with something that stays.
 */
export type ErrorKind = 'transient' | 'conflict' | 'exhausted' | 'quota' | 'auth' | 'missing' | 'permanent'

export type Verdict = { readonly kind: ErrorKind; readonly remedy?: string | undefined }

type Rule = Verdict & {
  /** The rule holds only if the message matches; for types that mean several things. */
  readonly text?: RegExp
}

const missing = (what: string): Verdict => ({ kind: 'missing', remedy: `check the id of the ${what}, and the project` })
const inUse = (remedy: string): Verdict => ({ kind: 'permanent', remedy })

const subnetFull = 'delete ports that nobody uses, or enlarge the allocation pool or add a subnet'
const rolesMissing = 'give the user a role that permits it, or use the credentials of another project'

/** Requests without an answer, and answers that are none; the types are ours. */
const transport: Readonly<Record<string, Verdict>> = {
  ConnectionFailed: {
    kind: 'transient',
    remedy: 'check the URL, and that the service runs and can be reached from here',
  },
  TlsFailed: {
    kind: 'permanent',
    remedy: 'name the authority that signed the certificate ("cacert"), or the host name that stands in it',
  },
  TimeOut: { kind: 'transient', remedy: 'try again; if it stays, look at the load of the service' },
  ConnectionCut: {
    kind: 'transient',
    remedy: 'try again; if it stays, look at the load balancer in front of the service',
  },
  Aborted: { kind: 'transient' },
  QueueFull: { kind: 'transient', remedy: 'try again later; more requests wait than the limit allows' },
  CircuitOpen: {
    kind: 'transient',
    remedy: 'look at the service; it is asked again by itself, and pods get what this node holds until then',
  },
  TooSlow: { kind: 'transient', remedy: 'try again with more time; if it stays, look at the load of the service' },
  LimitReached: {
    kind: 'transient',
    remedy: 'try again; if it stays, raise the limit of the cloud, and --requests-per-second of the agent',
  },
  AnswerTooLarge: { kind: 'permanent', remedy: 'ask for less: use filters' },
  UnexpectedAnswer: {
    kind: 'permanent',
    remedy: 'check that the URL is that of the service, not of something in between',
  },
  EndpointMissing: {
    kind: 'permanent',
    remedy:
      'check "region_name" and "interface", or name the address ("network_endpoint_override", "compute_endpoint_override")',
  },
}

const keystone: Readonly<Record<string, readonly Rule[]>> = {
  Unauthorized: [
    {
      kind: 'auth',
      text: /cannot request a scope/i,
      remedy: 'leave out project and domain: an application credential brings its own',
    },
    { kind: 'auth', remedy: 'check user, password, domain and project: Keystone does not say which of them is wrong' },
  ],
  Forbidden: [{ kind: 'auth', remedy: rolesMissing }],
  NotFound: [
    {
      kind: 'auth',
      text: /application credential/i,
      remedy: 'create a new application credential: this one was deleted or belongs to another cloud',
    },
    { kind: 'missing' },
  ],
}

const neutron: Readonly<Record<string, readonly Rule[]>> = {
  PortNotFound: [missing('port')],
  NetworkNotFound: [missing('network')],
  SubnetNotFound: [missing('subnet')],
  RouterNotFound: [missing('router')],
  FloatingIPNotFound: [missing('floating IP')],
  SecurityGroupNotFound: [missing('security group')],
  TagNotFound: [missing('tag')],
  TenantQuotaNotFound: [missing('quota of the project')],
  TagResourceNotFound: [missing('tag’s owner')],
  TrunkNotFound: [missing('trunk')],
  SubPortNotFound: [missing('subport')],
  RouterInterfaceNotFound: [missing('router interface')],
  RouterInterfaceNotFoundForSubnet: [missing('router interface')],
  ExternalGatewayForFloatingIPNotFound: [
    { kind: 'permanent', remedy: 'connect the router of that network to the external network' },
  ],

  IpAddressGenerationFailure: [{ kind: 'exhausted', remedy: subnetFull }],
  IpAddressGenerationFailureForSubnet: [{ kind: 'exhausted', remedy: subnetFull }],
  // Ocata and Pike called it so.
  IPAllocationFailed: [{ kind: 'exhausted', remedy: subnetFull }],
  ExternalIpAddressExhausted: [{ kind: 'exhausted', remedy: 'release floating IPs that nobody uses' }],
  RoutesExhausted: [
    {
      kind: 'exhausted',
      remedy: 'remove routes that nobody needs, or raise max_routes (quota router_route) in Neutron',
    },
  ],
  AllowedAddressPairExhausted: [
    { kind: 'exhausted', remedy: 'use one pair with a CIDR, or raise max_allowed_address_pair in Neutron' },
  ],
  OverQuota: [{ kind: 'quota', remedy: 'delete what nobody uses, or ask for a larger quota of the project' }],

  IpAddressAlreadyAllocated: [inUse('choose another address, or delete the port that holds it')],
  IpAddressInUse: [inUse('choose another address, or delete the port that holds it')],
  MacAddressInUse: [inUse('choose another MAC address')],
  InvalidIpForNetwork: [inUse('choose an address of one of the network’s subnets')],
  InvalidIpForSubnet: [inUse('choose an address of the subnet')],
  // Releases before Stein.
  InvalidIpForNetworkError: [inUse('choose an address of one of the network’s subnets')],
  RouterInterfaceInUseByRoute: [inUse('remove the routes whose next hop lies on that subnet first')],
  RouterInterfaceInUseByFloatingIP: [inUse('disassociate the floating IPs of that subnet first')],
  ServicePortInUse: [inUse('remove the interface from the router instead of deleting its port')],
  NetworkInUse: [inUse('delete the ports of the network first')],
  SubnetInUse: [inUse('delete the ports with addresses of the subnet first')],
  RouterInUse: [inUse('remove the interfaces of the router first')],
  PortInUse: [inUse('detach the port from its device first')],
  PortInUseAsSubPort: [inUse('remove the port from its trunk first')],
  PortInUseAsTrunkParent: [inUse('delete the trunk first')],
  TrunkPortInUse: [inUse('use a port that is in no trunk')],
  DuplicateSubPort: [inUse('choose another segmentation id')],
  FloatingIPPortAlreadyAssociated: [inUse('disassociate the other floating IP first')],
  AddressPairAndPortSecurityRequired: [inUse('enable port security on the port')],
  PortSecurityPortHasSecurityGroup: [inUse('send an empty list of security groups in the same call')],
  DuplicateAddressPairInRequest: [inUse('send every address pair once')],
  InvalidRoutes: [inUse('the next hop must be an address on a subnet of the router, and not the router’s own')],

  RevisionNumberConstraintFailed: [{ kind: 'conflict', remedy: 'read the object again' }],
  HTTPConflict: [{ kind: 'conflict' }],
  MacAddressGenerationFailure: [{ kind: 'transient' }],
  HTTPInternalServerError: [{ kind: 'transient', remedy: 'look for the request in the log of Neutron' }],
  HTTPServiceUnavailable: [{ kind: 'transient' }],
  ServiceUnavailable: [{ kind: 'transient' }],

  PolicyNotAuthorized: [{ kind: 'auth', remedy: rolesMissing }],
  AdminRequired: [{ kind: 'auth', remedy: rolesMissing }],
  NotAuthorized: [{ kind: 'auth', remedy: rolesMissing }],
  // Releases before Stein stop at 5 addresses per port and say so in the text only.
  InvalidInput: [
    {
      kind: 'exhausted',
      text: /maximum amount of fixed ips per port/i,
      remedy: 'raise max_fixed_ips_per_port in Neutron, or use another mode',
    },
    { kind: 'permanent' },
  ],
  HTTPNotFound: [
    {
      kind: 'permanent',
      remedy: 'check the address of the service in the catalog, and that Neutron has the extension',
    },
  ],
}

const nova: Readonly<Record<string, readonly Rule[]>> = {
  itemNotFound: [{ kind: 'missing', remedy: 'check the ids of server and port, and the project' }],
  conflictingRequest: [
    {
      kind: 'conflict',
      text: /still in use/i,
      remedy: 'detach the port from the other server; after a detach this passes',
    },
    { kind: 'conflict', remedy: 'wait until the server’s current task is done' },
  ],
  forbidden: [
    {
      kind: 'quota',
      text: /(maximum number of ports|quota) exceeded/i,
      remedy: 'delete what nobody uses, or ask for a larger quota of the project',
    },
    { kind: 'auth', remedy: rolesMissing },
  ],
  badRequest: [
    { kind: 'exhausted', text: /no fixed ip addresses available|no more ip/i, remedy: subnetFull },
    { kind: 'permanent' },
  ],
  overLimit: [{ kind: 'transient' }],
  // The hypervisor found no slot for it, or no address; the port is free again.
  computeFault: [
    {
      kind: 'exhausted',
      text: /failed to attach network adapter/i,
      remedy: 'detach a NIC that nobody uses, or give the image or flavour more PCI slots',
    },
  ],
  HTTPNotFound: [{ kind: 'permanent', remedy: 'check the address of the service in the catalog' }],
}

const tables = { keystone, neutron, nova }

/** Whose fault an error is and what helps, by type and text first, by status where the type is not known. */
export function classify(service: keyof typeof tables, status: number, type: string, message: string): Verdict {
  const known = transport[type] ?? tables[service][type]?.find(rule => rule.text?.test(message) ?? true)
  if (known !== undefined) return { kind: known.kind, remedy: known.remedy }
  return byStatus(status)
}

function byStatus(status: number): Verdict {
  switch (status) {
    case 401:
      return { kind: 'auth', remedy: 'check the credentials: a new token was refused as well' }
    case 403:
      return { kind: 'auth', remedy: rolesMissing }
    case 409:
    case 412:
      return { kind: 'conflict' }
    case 408:
    case 425:
    case 429:
      return { kind: 'transient' }
    case 501:
    case 505:
      return { kind: 'permanent' }
    default:
      return { kind: status >= 500 ? 'transient' : 'permanent' }
  }
}
