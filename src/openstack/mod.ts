// SPDX-License-Identifier: Apache-2.0

// openstack: Keystone, Neutron and Nova as an HTTP client sees them, and the credentials to reach them.
// Every call takes a deadline; retries only where a repetition does no harm; every error says what the user can do.
// Imports base, undici and yaml only. Knows nothing of CNI, journals or pods: what an address is for is decided above.

export type { BreakerState } from './breaker.ts'
export {
  type Cloud,
  CloudConfigError,
  type Credentials,
  type DomainRef,
  type EndpointInterface,
  type Named,
  type Scope,
  type ServiceType,
  type Tls,
} from './cloud.ts'
export { type CloudFiles, type LoadOptions, listClouds, loadCloud } from './clouds.ts'
export { cloudFromConf, confKeys } from './conf.ts'
export { isMissing, OpenStackError, type ServiceName } from './error.ts'
export type { ErrorKind } from './errors.ts'
export type { GateOptions, SentRequest } from './gate.ts'
export { type Health, type Level, levelNames } from './health.ts'
export type { HttpOptions } from './http.ts'
export type { Identity, TokenInfo } from './keystone/identity.ts'
export type { WithLock } from './keystone/renewal.ts'
export type { Limits, Purpose } from './limits.ts'
export type { Availability, SubnetAvailability } from './neutron/availability.ts'
export type { Extensions } from './neutron/extension.ts'
export type {
  Association,
  FloatingIp,
  FloatingIpCreate,
  FloatingIpFilter,
  FloatingIps,
} from './neutron/floatingip.ts'
export type { Network, NetworkCreate, NetworkFilter, Networks } from './neutron/network.ts'
export type {
  AddressPair,
  FixedIp,
  FixedIpRequest,
  Port,
  PortCreate,
  PortCreateTagged,
  PortFilter,
  Ports,
  PortUpdate,
} from './neutron/port.ts'
export type { QuotaDetail, Quotas } from './neutron/quota.ts'
export type { CreateLimits, WriteLimits } from './neutron/resource.ts'
export type { ExtraRoute, Router, RouterCreate, RouterFilter, Routers } from './neutron/router.ts'
export type { SecurityGroup, SecurityGroupFilter, SecurityGroups } from './neutron/securitygroup.ts'
export type { Subnet, SubnetCreate, SubnetFilter, Subnets } from './neutron/subnet.ts'
export type { Tags } from './neutron/tag.ts'
export type { Trunk, Trunks } from './neutron/trunk.ts'
export type { Attachment, Interface, Interfaces } from './nova/interface.ts'
export type { Server, Servers } from './nova/server.ts'
export { type Secret, secret } from './secret.ts'
export { type CloudOptions, type CloudSession, type Neutron, type Nova, openCloud } from './session.ts'
export { isUuid } from './uuid.ts'
