#!/bin/sh
# fill.sh DIR: the files that every golden disc holds. Runs in any sh, busybox's included.
set -e
D=$1
mkdir -p "$D/dir/sub" "$D/many"
cat > "$D/ovf-env.xml" <<'X'
<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
      <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
      <HostName>golden</HostName>
      <UserName>azureuser</UserName>
      <DisableSshPasswordAuthentication>true</DisableSshPasswordAuthentication>
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <PlatformSettings xmlns="http://schemas.microsoft.com/windowsazure">
      <ProvisionGuestAgent>true</ProvisionGuestAgent>
    </PlatformSettings>
  </wa:PlatformSettingsSection>
</Environment>
X
awk 'BEGIN { for (n = 0; n < 1172; n++) printf "%0255d\n", n * 7919 }' | head -c 300000 > "$D/CustomData.bin"
: > "$D/empty"
echo "small enough for the ICB" > "$D/small.txt"
echo "deep" > "$D/dir/sub/deep.txt"
echo "unicode" > "$D/Grüße-名前.txt"
n=0
while [ $n -lt 60 ]; do
  echo "many $n" > "$D/many/file-with-a-rather-long-name-$n.txt"
  n=$((n + 1))
done
